"""What ``pdesurrogate new`` copies: three packages that work as they stand, under names that the copy replaces.

They are part of this package so that style, types and tests are checked here, not first at the user's.
"""
