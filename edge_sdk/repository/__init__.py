"""Writing TUF metadata with python-tuf: the offline key ceremony and the server's online roles."""
