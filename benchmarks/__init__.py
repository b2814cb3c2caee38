"""Sampan beside other engines, in one run, through the clients that people use: `make bench`."""
