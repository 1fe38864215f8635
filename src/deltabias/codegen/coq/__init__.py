"""Rules to Coq: the text of a certificate. Nothing here runs Coq (``deltabias.certify`` does)."""
