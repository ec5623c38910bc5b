"""What is installed: plugins found by their entry points, loaded one by one under a guard, and what each offers."""
