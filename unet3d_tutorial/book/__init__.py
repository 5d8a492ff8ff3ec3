"""Helpers of the chapters, not needed by users of the package: listings, costs, figures."""
