"""Where AP is lost. To be read in this order: types, costs, confusion, curves, suppression,
schema, study, rows.
"""
