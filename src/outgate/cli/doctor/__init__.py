"""``outgate doctor``: whether this host can enforce policies, and whether the installation that runs is well."""
