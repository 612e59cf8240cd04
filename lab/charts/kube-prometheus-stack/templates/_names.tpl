{{- /* As the real chart: 26 characters, and the release's name alone when it holds the chart's. */}}
{{- define "stack.fullname" -}}
{{- $name := .Values.nameOverride | default .Chart.Name -}}
{{- $release := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{ .Values.fullnameOverride | default $release | trunc 26 | trimSuffix "-" }}
{{- end }}

{{- define "stack.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: kube-prometheus-stack
release: {{ .Release.Name }}
{{- end }}

{{- /* What a Prometheus takes: everything, or only what carries the release's label. */}}
{{- define "stack.selector" -}}
{{- if index .spec (printf "%sSelectorNilUsesHelmValues" .kind) }}{matchLabels: {release: {{ .release }}}}{{ else }}{}{{ end }}
{{- end }}
