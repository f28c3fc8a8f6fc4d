"""The commands of the light install. Each module parses options, calls the library and prints."""
