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

{{/* Return an image reference. Argument: a list of the image values and the default tag. */}}
{{- define "cortex.image" -}}
{{- $image := index . 0 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 1) }}
{{- end -}}
{{- end }}

{{/* Container security context for the Pod Security level "restricted". */}}
{{- define "cortex.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Pod security context for the Pod Security level "restricted". */}}
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

{{/* URL of the queue; empty if a Secret contains it, or if no queue is configured. */}}
{{- define "cortex.queueUrl" -}}
{{- if and .Values.nats.enabled (not .Values.nats.tokenSecretName) -}}
nats://{{ include "cortex.natsName" . }}.{{ .Release.Namespace }}.svc:4222{{ if gt (int .Values.nats.replicas) 1 }}?replicas={{ .Values.nats.replicas }}{{ end }}
{{- else -}}
{{ .Values.queue.url }}
{{- end -}}
{{- end }}

{{/* Permissions of the operator in each namespace that it watches. */}}
{{- define "cortex.rules" -}}
- apiGroups: [cortex.dev]
  resources: [realtimeapis, asyncapis]
  # delete: the development copies of `cortex dev` that have expired.
  verbs: [get, list, watch, delete]
# To add and remove the finalizer of AsyncAPIs with queue.deletionPolicy: Delete.
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
# The last ten specs of each API, for `cortex history` and `cortex rollback`.
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [list, create, patch, delete]
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
  resources: [httproutes{{ if .Values.gateway.grpcHostname }}, grpcroutes{{ end }}]
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
# To notify stable replicas of a change of the candidate at once (an annotation makes the kubelet update the volume).
- apiGroups: [""]
  resources: [pods]
  verbs: [patch]
# To run a pod that deletes a queue (queue.deletionPolicy: Delete).
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
