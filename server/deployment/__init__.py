"""From a list of sites to a consortium: certificates, keys, scripts, units, checklists."""
