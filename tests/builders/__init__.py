"""What tests are made of: pictures, tables, runs."""
