"""One report, four forms: a Nagios line, a table, JSON, Prometheus text. None of them decides anything."""
