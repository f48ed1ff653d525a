"""The web process: Label Studio's ML-backend protocol."""
