"""The dashboard's own pages: each module has the routes and values of one, `templates/` its looks."""
