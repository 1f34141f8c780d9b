"""What a person looks at: run folders become one dictionary, the dictionary becomes a page.

`reading.collect` reads, `prose` puts into words, `page.render` writes HTML, `svg` draws.
"""
