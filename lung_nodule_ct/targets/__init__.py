"""The neutral schema and the examples, compiled to what each ecosystem reads. No parsing here."""
