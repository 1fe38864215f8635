"""Wrong subjects that a check has to reject: a check that rejects nothing says nothing."""
