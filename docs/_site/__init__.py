"""What the build of the site is made of: pages, links, notebooks, tables, formulas."""
