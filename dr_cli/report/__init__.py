"""What a person looks at: run folders become one dictionary, the dictionary becomes a page.

`page.collect` reads, `page.render` writes HTML, `figures` draws.
"""
