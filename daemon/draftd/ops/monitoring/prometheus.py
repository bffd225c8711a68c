"""What Prometheus needs: the scrape job, and two alert rules. Pure."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

RULES_FILE = "draftd-rules.yml"
KEY_FILE = "draftd-api-key"

_CONFIG = """\
# Save as prometheus.yml, with the alert rules beside it:  draftd prometheus --rules > {rules_file}
# If you have a Prometheus already, copy the job and the line under rule_files.
global:
  scrape_interval: 15s
  evaluation_interval: 15s

rule_files:
  - {rules_file}

scrape_configs:
  - job_name: draftd
{scheme}{authorization}    static_configs:
      - targets: [{target}]
"""

_AUTHORIZATION = """\
    # The API key, in a file beside this one:  (umask 077; printf %s "$DRAFTD_API_KEY" > {key_file})
    authorization:
      credentials_file: {key_file}
"""

_HTTPS = """\
    scheme: https
"""

_TRUSTED = """\
    tls_config:
      ca_file: {file}
"""

RULES = """\
groups:
  - name: draftd
    rules:
      - alert: DraftdWorkerFailed
        expr: draftd_worker_state{state="failed"} == 1
        labels:
          severity: critical
        annotations:
          summary: "draftd: {{ $labels.profile }} has failed"
          description: >-
            The worker failed too often and stays down until a person looks. 'draftd logs {{ $labels.profile }}'
            shows why, 'draftd restart {{ $labels.profile }}' tries again.
      # The ratio of 15 minutes is NaN, and so no alert, where nothing was drafted.
      - alert: DraftdAcceptanceLow
        expr: |-
          sum by (instance, profile) (increase(draftd_draft_tokens_accepted_total[15m]))
            / sum by (instance, profile) (increase(draftd_draft_tokens_proposed_total[15m])) < 0.6
        for: 15m
        labels:
          severity: warning
        annotations:
          summary: "draftd: {{ $labels.profile }} keeps {{ $value | humanizePercentage }} of its draft tokens"
          description: >-
            Under 60 % drafting rarely pays. A shorter draft (num_draft_tokens), another draft model or a lower
            temperature may help; 'draftd bench' measures it.
"""


def config(url: str, *, with_key: bool, to_trust: str = "") -> str:
    """prometheus.yml for the daemon at `url`, whose certificate is trusted if it is in the file `to_trust`. The key
    itself is never in it, only the name of a file.
    """
    scheme = _HTTPS if url.startswith("https:") else ""
    if to_trust:
        scheme += _TRUSTED.format(file=json.dumps(to_trust))
    authorization = _AUTHORIZATION.format(key_file=KEY_FILE) if with_key else ""
    return _CONFIG.format(
        rules_file=RULES_FILE,
        scheme=scheme,
        authorization=authorization,
        target=json.dumps(urlsplit(url).netloc),
    )
