{{/* routelet reads Secrets of this namespace, and its nodes' pods are critical to the system. */}}
{{- define "routelet.namespace" -}}kube-system{{- end }}

{{- define "routelet.selector" -}}
app.kubernetes.io/name: routelet
app.kubernetes.io/component: routing
app.kubernetes.io/part-of: routelet
{{- end }}

{{- define "routelet.labels" -}}
{{ include "routelet.selector" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "routelet.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}
{{- else -}}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "routelet.monitored" -}}
{{- if or .Values.podMonitor.enabled .Values.serviceMonitor.enabled }}true{{ end -}}
{{- end }}

{{- /* The key of kubernetes.startup-taint, which the admission policy lets routelet take away. */}}
{{- define "routelet.startupTaint" -}}
{{- if kindIs "string" .Values.rbac.startupTaint }}{{ .Values.rbac.startupTaint }}{{ else }}routelet.io/not-ready{{ end }}
{{- end }}
