"""What watches draftd from outside: Prometheus and Grafana."""
