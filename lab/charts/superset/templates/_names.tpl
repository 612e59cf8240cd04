{{- define "superset.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* As the real chart: the release's name alone when it holds the chart's. */}}
{{- define "superset.fullname" -}}
{{- $name := include "superset.name" . -}}
{{- $release := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{ .Values.fullnameOverride | default $release | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "superset.labels" -}}
app: {{ include "superset.name" . }}
chart: {{ .Chart.Name }}-{{ .Chart.Version }}
release: {{ .Release.Name }}
heritage: {{ .Release.Service }}
{{- end }}

{{- /* What every pod has: root, name of the container, command. */}}
{{- define "superset.podSpec" -}}
securityContext:
  runAsUser: {{ .root.Values.runAsUser }}
containers:
  - name: {{ .container }}
    image: {{ .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: [/bin/sh, -c, {{ printf ". %s/superset_bootstrap.sh; %s" .root.Values.configMountPath .command | quote }}]
    envFrom:
      - secretRef:
          name: {{ tpl .root.Values.envFromSecret .root }}
      {{- range .root.Values.envFromSecrets }}
      - secretRef:
          name: {{ tpl . $.root }}
      {{- end }}
    {{- if eq .container (include "superset.name" .root) }}
    ports:
      - name: http
        containerPort: {{ .root.Values.service.port }}
    readinessProbe:
      httpGet:
        path: /health
        port: http
    {{- end }}
    volumeMounts:
      - name: superset-config
        mountPath: {{ .root.Values.configMountPath }}
        readOnly: true
volumes:
  - name: superset-config
    secret:
      secretName: {{ tpl .root.Values.configFromSecret .root }}
{{- end }}
