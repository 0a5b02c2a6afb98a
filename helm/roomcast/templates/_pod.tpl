{{/* What the pods of every role have in common. */}}

{{/* Nobody in the pod is root, and nothing in it can become so: the `restricted` pod security standard. (list uid) */}}
{{- define "roomcast.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ index . 0 }}
runAsGroup: {{ index . 0 }}
fsGroup: {{ index . 0 }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "roomcast.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* (list context component values) */}}
{{- define "roomcast.podAnnotations" -}}
{{- $root := index . 0 -}}
checksum/settings: {{ include "roomcast.settings" $root | sha256sum }}
{{- if not $root.Values.secrets.existingSecret }}
checksum/secrets: {{ $root.Values.secrets.values | toJson | sha256sum }}
{{- end }}
{{- with (index . 2).podAnnotations }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* (list context component values): where pods run, and as whom. */}}
{{- define "roomcast.podBase" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index . 2 -}}
serviceAccountName: {{ include "roomcast.serviceAccountName" $root }}
automountServiceAccountToken: {{ and (eq $component "node") $root.Values.nodes.podDeletionCost }}
# The variables that Kubernetes makes of Services look like settings: ROOMCAST_PORT, REDIS_PORT.
enableServiceLinks: false
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- include "roomcast.podSecurity" (list 65532) | nindent 2 }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if (default dict $values.topologySpread).enabled }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: {{ $values.topologySpread.whenUnsatisfiable }}
    labelSelector:
      matchLabels:
        {{- include "roomcast.selectorLabels" (list $root $component) | nindent 8 }}
    # A new version's pods are spread among themselves, not around those that go.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end }}

{{/* (list context component): settings and secrets of a container. */}}
{{- define "roomcast.env" -}}
{{- $root := index . 0 -}}
{{- $keys := include "roomcast.secretKeysOf" . | fromJsonArray -}}
envFrom:
  - configMapRef:
      name: {{ include "roomcast.fullname" $root }}-settings
{{- $knowsPod := and (eq (index . 1) "node") $root.Values.nodes.podDeletionCost }}
{{- if or $keys $knowsPod }}
env:
  {{- range $keys }}
  - name: {{ . }}_FILE
    value: /etc/roomcast/secrets/{{ . }}
  {{- end }}
  {{- if $knowsPod }}
  - name: POD_NAMESPACE
    valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
  - name: POD_NAME
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  - name: ROOMCAST_POD
    value: $(POD_NAMESPACE)/$(POD_NAME)
  {{- end }}
{{- end }}
{{- end }}

{{/* (list context component) */}}
{{- define "roomcast.mounts" -}}
{{- $root := index . 0 -}}
{{- if include "roomcast.secretKeysOf" . | fromJsonArray }}
- name: secrets
  mountPath: /etc/roomcast/secrets
  readOnly: true
{{- end }}
{{- if and $root.Values.redis.tls.existingSecret (ne (index . 1) "backend") }}
- name: redis-tls
  mountPath: /etc/roomcast/redis-tls
  readOnly: true
{{- end }}
{{- end }}

{{/* (list context component) */}}
{{- define "roomcast.volumes" -}}
{{- $root := index . 0 -}}
{{- with include "roomcast.secretKeysOf" . | fromJsonArray }}
- name: secrets
  secret:
    secretName: {{ include "roomcast.secretName" $root }}
    defaultMode: 0440
    items:
      {{- range . }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
{{- end }}
{{- if and $root.Values.redis.tls.existingSecret (ne (index . 1) "backend") }}
- name: redis-tls
  secret:
    secretName: {{ $root.Values.redis.tls.existingSecret }}
    defaultMode: 0440
    items:
      {{- with $root.Values.redis.tls }}
      {{- range without (list .caKey .certKey .keyKey) "" }}
      - {key: {{ . }}, path: {{ . }}}
      {{- end }}
      {{- end }}
{{- end }}
{{- end }}

{{/* Alive: the process answers. Ready: it should get traffic. Started: it answered once, however slow the machine; not
/startupz, which waits for Redis: pods would be restarted for as long as that is away. */}}
{{- define "roomcast.probes" -}}
startupProbe:
  httpGet: {path: /livez, port: ops}
  periodSeconds: 2
  failureThreshold: 30
livenessProbe:
  httpGet: {path: /livez, port: ops}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: ops}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end }}
