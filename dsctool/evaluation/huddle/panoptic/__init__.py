"""PQ where things huddle. To be read in this order: schema, things, measuring, losses, study, rows."""
