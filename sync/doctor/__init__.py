"""`mad doctor`: looks for everything at a Label Studio server that makes teams lose a day."""
