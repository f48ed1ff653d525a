"""Who does the work of a scan: threads of this process, one process a device, or a Ray cluster. The same bytes out."""
