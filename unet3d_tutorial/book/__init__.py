"""What the chapters need and users of the package do not: listings, costs, time and memory."""
