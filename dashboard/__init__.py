"""The dashboard: our pages, the HTTP API and rq-dashboard, behind one guard."""
