{{- /* root, component */}}
{{- define "jupyterhub.matchLabels" -}}
app.kubernetes.io/name: jupyterhub
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "jupyterhub.labels" -}}
{{ include "jupyterhub.matchLabels" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end }}

{{- /* As the real chart: the value, else what the live Secret has, else something new. root, value, key */}}
{{- define "jupyterhub.token" -}}
{{- $live := (lookup "v1" "Secret" .root.Release.Namespace "hub").data | default dict -}}
{{- if .value }}{{ .value | b64enc }}{{ else }}{{ get $live .key | default (randAlphaNum 64 | b64enc) }}{{ end -}}
{{- end }}
