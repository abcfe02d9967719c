{{/* Refuses values that the schema lets pass one by one but that contradict each other: each message names them. */}}
{{- define "cortex.validate" -}}
{{- $v := .Values -}}
{{- if and $v.gateway.name $v.ingress.className -}}
{{- fail "gateway.name and ingress.className are both set: APIs are reached through one of them. Empty the other." -}}
{{- end -}}
{{- range $key := list "namespace" "sectionName" "hostname" -}}
{{- if and (index $v.gateway $key) (not $v.gateway.name) -}}
{{- fail (printf "gateway.%s is set, but gateway.name is empty: name the Gateway that it belongs to." $key) -}}
{{- end -}}
{{- end -}}
{{- range $key := list "hostname" "tlsSecretName" -}}
{{- if and (index $v.ingress $key) (not $v.ingress.className) -}}
{{- fail (printf "ingress.%s is set, but ingress.className is empty: name the ingress class that it belongs to." $key) -}}
{{- end -}}
{{- end -}}
{{- if and $v.nats.enabled $v.queue.url -}}
{{- fail "nats.enabled and queue.url are both set: jobs are kept in one place. Empty queue.url, or set nats.enabled to false." -}}
{{- end -}}
{{- if and $v.nats.tokenSecretName (not $v.nats.enabled) -}}
{{- fail "nats.tokenSecretName is set, but nats.enabled is false: no NATS would use it." -}}
{{- end -}}
{{- if and $v.nats.tokenSecretName (not $v.queue.secretName) -}}
{{- fail "nats.tokenSecretName needs queue.secretName: a Secret in each API's namespace, with CORTEX_QUEUE_URL and the token in it." -}}
{{- end -}}
{{- range $key := list "allowFrom" "monitoringFrom" -}}
{{- if and (index $v.networkPolicy $key) (not $v.networkPolicy.enabled) (not (and (eq $key "monitoringFrom") $v.nats.enabled)) -}}
{{- fail (printf "networkPolicy.%s is set, but networkPolicy.enabled is false: nothing would be restricted." $key) -}}
{{- end -}}
{{- end -}}
{{- if and $v.networkPolicy.enabled (not $v.networkPolicy.monitoringFrom) -}}
{{- range $key := list "serviceMonitor" "podMonitor" -}}
{{- if (index $v.metrics $key).enabled -}}
{{- fail (printf "metrics.%s.enabled with networkPolicy.enabled needs networkPolicy.monitoringFrom: Prometheus could reach nothing." $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $v.nodePools (not $v.karpenter.enabled) -}}
{{- fail "nodePools is set, but karpenter.enabled is false: nothing would be made of it. For Cluster Autoscaler set the bounds at the node groups." -}}
{{- end -}}
{{- if and $v.karpenter.enabled (not $v.nodePools) -}}
{{- fail "karpenter.enabled is true, but nodePools is empty: name at least one pool." -}}
{{- end -}}
{{- if and $v.karpenter.enabled (not $v.karpenter.nodeClass.name) -}}
{{- fail "karpenter.enabled is true, but karpenter.nodeClass.name is empty: it says what nodes are made from." -}}
{{- end -}}
{{- $names := dict -}}
{{- range $i, $pool := $v.nodePools -}}
{{- if gt (int $pool.min) (int $pool.max) -}}
{{- fail (printf "nodePools[%d] (%s): min %d is greater than max %d." $i $pool.name (int $pool.min) (int $pool.max)) -}}
{{- end -}}
{{- if hasKey $names $pool.name -}}
{{- fail (printf "nodePools[%d]: there is another pool with the name %s." $i $pool.name) -}}
{{- end -}}
{{- $_ := set $names $pool.name true -}}
{{- end -}}
{{- end }}
