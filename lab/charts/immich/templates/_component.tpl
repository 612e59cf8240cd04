{{- /*
One component of Immich: its Deployment and its Service, named after the release and the component.
root: the chart's context; component: its name; strategy where it is not RollingUpdate; port, portName; more: environment of its own; volume: volume and where it goes
*/ -}}
{{- define "immich.component" -}}
{{- $values := mergeOverwrite (pick .root.Values "controllers" | deepCopy) (pick (get .root.Values .component) "controllers" | deepCopy) -}}
{{- $controller := $values.controllers.main -}}
{{- $container := $controller.containers.main -}}
{{- $labels := dict "app.kubernetes.io/name" .component "app.kubernetes.io/instance" .root.Release.Name "app.kubernetes.io/controller" "main" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .root.Release.Name }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- toYaml $labels | nindent 4 }}
spec:
  replicas: {{ $controller.replicas | default 1 }}
  strategy:
    type: {{ $controller.strategy | default .strategy | default "RollingUpdate" }}
  selector:
    matchLabels: {{- toYaml $labels | nindent 6 }}
  template:
    metadata:
      labels: {{- toYaml $labels | nindent 8 }}
    spec:
      automountServiceAccountToken: false
      containers:
        - name: main
          image: {{ $container.image.repository }}:{{ $container.image.tag }}
          ports:
            - name: {{ .portName }}
              containerPort: {{ .port }}
          {{- with mergeOverwrite (.more | default dict) ($container.env | default dict) }}
          env:
            {{- range $name, $value := . }}
            - name: {{ $name }}
              {{- if kindIs "map" $value }}{{ toYaml $value | nindent 14 }}{{ else }}
              value: {{ $value | quote }}
              {{- end }}
            {{- end }}
          {{- end }}
          volumeMounts:
            - name: data
              mountPath: {{ .mountPath }}
      volumes:
        - name: data
          {{- toYaml .volume | nindent 10 }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ .root.Release.Name }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- toYaml $labels | nindent 4 }}
spec:
  selector: {{- toYaml $labels | nindent 4 }}
  ports:
    - name: {{ .portName }}
      port: {{ .port }}
      targetPort: {{ .portName }}
{{- end }}
