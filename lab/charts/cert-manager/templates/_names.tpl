{{- define "cert-manager.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* As the real chart: the release's name alone when it holds the chart's. */}}
{{- define "cert-manager.fullname" -}}
{{- $name := include "cert-manager.name" . -}}
{{- $release := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{ .Values.fullnameOverride | default $release | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* The three programs: what they are called, and their ports. */}}
{{- define "cert-manager.programs" -}}
- {name: "", app: {{ include "cert-manager.name" . }}, component: controller, port: http-metrics, number: 9402, values: {{ toJson .Values }}}
- {name: -webhook, app: webhook, component: webhook, port: https, number: {{ .Values.webhook.securePort }}, values: {{ toJson .Values.webhook }}}
{{- if .Values.cainjector.enabled }}
- {name: -cainjector, app: cainjector, component: cainjector, port: http-metrics, number: 9402, values: {{ toJson .Values.cainjector }}}
{{- end }}
{{- end }}

{{- define "cert-manager.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
