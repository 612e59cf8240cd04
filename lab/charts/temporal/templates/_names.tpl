{{- define "temporal.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* As the real chart: the release's name alone when it holds the chart's. */}}
{{- define "temporal.fullname" -}}
{{- $name := include "temporal.name" . -}}
{{- $release := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{ .Values.fullnameOverride | default $release | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* root: the chart's context; component: frontend, history, … */}}
{{- define "temporal.selectorLabels" -}}
app.kubernetes.io/name: {{ include "temporal.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "temporal.labels" -}}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{ include "temporal.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: {{ .root.Chart.Name }}
{{- end }}

{{- /* The SQL store that plays a part: root, store (default or visibility) */}}
{{- define "temporal.sql" -}}
{{- $persistence := .root.Values.server.config.persistence -}}
{{- $store := get $persistence (printf "%sStore" .store) -}}
{{- $datastore := get $persistence.datastores $store | required (printf "No valid driver configured for %s store" .store) -}}
{{ toYaml $datastore.sql }}
{{- end }}

{{- define "temporal.password" -}}
valueFrom:
  secretKeyRef:
    name: {{ .existingSecret | required "existingSecret is required" }}
    key: {{ .secretKey | default "password" }}
{{- end }}
