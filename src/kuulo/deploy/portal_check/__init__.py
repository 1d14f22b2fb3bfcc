"""A check of any batch-connect app of Open OnDemand."""
