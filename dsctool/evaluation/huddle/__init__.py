"""AP where instances huddle. To be read in this order: subsets, matched, schema, measuring, study, rows."""
