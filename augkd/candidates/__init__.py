"""Where extra texts come from; every source fills the same pool."""
