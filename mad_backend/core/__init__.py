"""The method itself: numpy in, numpy out; no files, no SQL, no HTTP."""
