"""One module a chapter: texts or scenarios in, tidy tables out."""
