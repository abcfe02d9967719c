{{- define "cortex.selector" -}}
app.kubernetes.io/name: cortex-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "cortex.labels" -}}
{{ include "cortex.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: cortex
{{- end }}

{{- define "cortex.fullname" -}}
{{- printf "%s-operator" .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{/* An image: repository, and digest or tag. Takes a list of the image's values and the tag when it has none. */}}
{{- define "cortex.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 1) }}
{{- end -}}
{{- end }}

{{/* What Pod Security "restricted" asks of each container. */}}
{{- define "cortex.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* What it asks of each pod. */}}
{{- define "cortex.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "cortex.natsSelector" -}}
app.kubernetes.io/name: cortex-nats
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "cortex.natsLabels" -}}
{{ include "cortex.natsSelector" . }}
app.kubernetes.io/version: {{ .Values.nats.image.tag | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: cortex
{{- end }}

{{- define "cortex.natsName" -}}
{{- printf "%s-nats" .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- end }}

{{/* Where AsyncAPIs keep their jobs; empty when a Secret says it, or nothing does. */}}
{{- define "cortex.queueUrl" -}}
{{- if and .Values.nats.enabled (not .Values.nats.tokenSecretName) -}}
nats://{{ include "cortex.natsName" . }}.{{ .Release.Namespace }}.svc:4222{{ if gt (int .Values.nats.replicas) 1 }}?replicas={{ .Values.nats.replicas }}{{ end }}
{{- else -}}
{{ .Values.queue.url }}
{{- end -}}
{{- end }}

{{/* What the operator may do in each namespace that it serves. */}}
{{- define "cortex.rules" -}}
- apiGroups: [cortex.dev]
  resources: [realtimeapis, asyncapis]
  verbs: [get, list, watch]
# The finalizer of an AsyncAPI whose queue goes with it (queue.deletionPolicy: Delete).
- apiGroups: [cortex.dev]
  resources: [asyncapis]
  verbs: [patch]
- apiGroups: [cortex.dev]
  resources: [realtimeapis/status, asyncapis/status]
  verbs: [get, patch, update]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments/scale]
  verbs: [get, patch]
- apiGroups: [""]
  resources: [services, configmaps]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch, delete]
{{- if .Values.networkPolicy.enabled }}
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}
{{- if .Values.gateway.name }}
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}
{{- if .Values.ingress.className }}
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
# The pod that removes a queue (queue.deletionPolicy: Delete); it is replaced when what it was given is corrected.
- apiGroups: [""]
  resources: [pods]
  verbs: [create, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end }}

{{- define "cortex.testSelector" -}}
app.kubernetes.io/name: cortex-test
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
