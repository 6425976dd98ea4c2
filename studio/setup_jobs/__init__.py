"""Jobs that change the installation itself."""
