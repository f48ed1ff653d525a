"""Label Studio's formats, without network."""
