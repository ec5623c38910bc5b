"""Other people's schedulers, for `orchestration.py`: an environment of their own, and each told to run the same graphs."""
