"""What `make bench B=engine` is made of, a file for each kind of measurement."""
