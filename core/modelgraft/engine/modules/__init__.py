"""What every backend does with the modules of components: import, build with and without memory, fill, share, count, call.

The files that need torch import it at their top, and are imported by what loads alone; `protocol`, `targets` and `opened_code` are light.
"""
