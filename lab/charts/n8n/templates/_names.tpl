{{- define "n8n.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* As the real chart: the release's name alone when it holds n8n. */}}
{{- define "n8n.fullname" -}}
{{- $release := ternary .Release.Name (printf "%s-%s" .Release.Name (.Values.nameOverride | default "n8n")) (contains "n8n" .Release.Name) -}}
{{ .Values.fullnameOverride | default $release | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "n8n.selectorLabels" -}}
app.kubernetes.io/name: {{ include "n8n.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "n8n.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{ include "n8n.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "n8n.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (ternary (include "n8n.fullname" .) "default" .Values.serviceAccount.create) }}
{{- end }}
