"""The words of the kernel as values: ports, components, graphs, plans, problems."""
