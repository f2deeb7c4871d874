"""The contracts between services: Avro records, how they are framed, converted, carried in headers and kept compatible.

Pure but for the schema registry's port.
"""
