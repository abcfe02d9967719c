{{/* Reject contradicting values that the schema allows. Each message names the values. */}}
{{- define "cortex.validate" -}}
{{- $v := .Values -}}
{{- if and $v.gateway.name $v.ingress.className -}}
{{- fail "gateway.name and ingress.className are mutually exclusive; unset one of them" -}}
{{- end -}}
{{- range $key := list "namespace" "sectionName" "hostname" "grpcHostname" "grpcSectionName" -}}
{{- if and (index $v.gateway $key) (not $v.gateway.name) -}}
{{- fail (printf "gateway.%s requires gateway.name" $key) -}}
{{- end -}}
{{- end -}}
{{- if and $v.gateway.grpcSectionName (not $v.gateway.grpcHostname) -}}
{{- fail "gateway.grpcSectionName requires gateway.grpcHostname" -}}
{{- end -}}
{{- range $key := list "hostname" "tlsSecretName" -}}
{{- if and (index $v.ingress $key) (not $v.ingress.className) -}}
{{- fail (printf "ingress.%s requires ingress.className" $key) -}}
{{- end -}}
{{- end -}}
{{- if and $v.nats.enabled $v.queue.url -}}
{{- fail "nats.enabled and queue.url are mutually exclusive; unset one of them" -}}
{{- end -}}
{{- if and $v.nats.tokenSecretName (not $v.nats.enabled) -}}
{{- fail "nats.tokenSecretName requires nats.enabled: true" -}}
{{- end -}}
{{- if and $v.nats.tokenSecretName (not $v.queue.secretName) -}}
{{- fail "nats.tokenSecretName requires queue.secretName: a Secret in the namespace of each API with CORTEX_QUEUE_URL, including the token" -}}
{{- end -}}
{{- range $key := list "allowFrom" "monitoringFrom" -}}
{{- if and (index $v.networkPolicy $key) (not $v.networkPolicy.enabled) (not (and (eq $key "monitoringFrom") $v.nats.enabled)) -}}
{{- fail (printf "networkPolicy.%s requires networkPolicy.enabled: true" $key) -}}
{{- end -}}
{{- end -}}
{{- if and $v.networkPolicy.enabled (not $v.networkPolicy.monitoringFrom) -}}
{{- range $key := list "serviceMonitor" "podMonitor" -}}
{{- if (index $v.metrics $key).enabled -}}
{{- fail (printf "metrics.%s.enabled with networkPolicy.enabled requires networkPolicy.monitoringFrom; otherwise Prometheus cannot read the metrics" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $v.nodePools (not $v.karpenter.enabled) -}}
{{- fail "nodePools requires karpenter.enabled: true; for Cluster Autoscaler, set the limits in the node groups instead" -}}
{{- end -}}
{{- if and $v.karpenter.enabled (not $v.nodePools) -}}
{{- fail "karpenter.enabled requires at least one item in nodePools" -}}
{{- end -}}
{{- if and $v.karpenter.enabled (not $v.karpenter.nodeClass.name) -}}
{{- fail "karpenter.enabled requires karpenter.nodeClass.name" -}}
{{- end -}}
{{- $names := dict -}}
{{- range $i, $pool := $v.nodePools -}}
{{- if gt (int $pool.min) (int $pool.max) -}}
{{- fail (printf "nodePools[%d] (%s): min must be at most max (%d); got %d" $i $pool.name (int $pool.max) (int $pool.min)) -}}
{{- end -}}
{{- if hasKey $names $pool.name -}}
{{- fail (printf "nodePools[%d]: duplicate name %s" $i $pool.name) -}}
{{- end -}}
{{- $_ := set $names $pool.name true -}}
{{- end -}}
{{- end }}
