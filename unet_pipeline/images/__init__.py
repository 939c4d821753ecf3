"""Images in and out: any format in, OME-Zarr out."""
