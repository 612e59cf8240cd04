{{- define "tunnel.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* As the real chart: the release's name alone when it holds the chart's. */}}
{{- define "tunnel.fullname" -}}
{{- $name := include "tunnel.name" . -}}
{{- $release := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{ .Values.fullnameOverride | default $release | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "tunnel.selectorLabels" -}}
app.kubernetes.io/name: {{ include "tunnel.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "tunnel.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{ include "tunnel.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "tunnel.serviceAccountName" -}}
{{- $own := include "tunnel.fullname" . -}}
{{ .Values.serviceAccount.name | default (ternary $own "default" .Values.serviceAccount.create) }}
{{- end }}
