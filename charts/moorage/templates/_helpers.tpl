{{/* Names, labels and other parts that several objects share. */}}

{{- define "moorage.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "moorage.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "moorage.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "moorage.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Selectors cannot change after the installation, so they contain only name, instance and component. */}}
{{- define "moorage.selectorLabels" -}}
app.kubernetes.io/name: {{ include "moorage.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "moorage.labels" -}}
{{ include "moorage.selectorLabels" . }}
app.kubernetes.io/part-of: moorage
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "moorage.metadata" -}}
name: {{ include "moorage.fullname" .root }}-{{ .name | default .component }}
namespace: {{ .namespace | default .root.Release.Namespace }}
labels:
  {{- include "moorage.labels" . | nindent 2 }}
{{- end -}}

{{/* The labels of every sandbox pod in every release: moorage_crds.names.SANDBOX_SELECTOR. */}}
{{- define "moorage.sandboxLabels" -}}
app.kubernetes.io/name: moorage
app.kubernetes.io/component: sandbox
{{- end -}}

{{- define "moorage.sandboxNamespace" -}}
{{- .Values.sandboxes.namespace | default .Release.Namespace -}}
{{- end -}}

{{- define "moorage.image" -}}
{{- $given := index .root.Values.images .name -}}
{{- $digest := get .root.Values.images.digests .name -}}
{{- if $given -}}
{{- $given -}}
{{- else if $digest -}}
{{- printf "%s/moorage-%s@%s" .root.Values.images.registry .name $digest -}}
{{- else -}}
{{- printf "%s/moorage-%s:%s" .root.Values.images.registry .name (.root.Values.images.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "moorage.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* The security contexts that the restricted Pod Security Standard requires for a pod and for a container. */}}
{{- define "moorage.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "moorage.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "moorage.placement" -}}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- else }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "moorage.selectorLabels" . | nindent 8 }}
{{- end }}
{{- end -}}

{{- define "moorage.credentials" -}}
{{- .Values.credentials.existingSecret | default (printf "%s-credentials" (include "moorage.fullname" .)) -}}
{{- end -}}

{{- define "moorage.commandsSecret" -}}
{{- .Values.commands.existingSecret | default (printf "%s-commands" (include "moorage.fullname" .)) -}}
{{- end -}}

{{/* One secret value in base64: the stored value if the Secret exists, otherwise a new random value. */}}
{{- define "moorage.kept" -}}
{{- $stored := (lookup "v1" "Secret" .root.Release.Namespace .secret) | default dict -}}
{{- $data := get $stored "data" | default dict -}}
{{- get $data .key | default (randAlphaNum (int .length) | b64enc) -}}
{{- end -}}

{{/* "yes" when the chart creates the signing keys. */}}
{{- define "moorage.ownsSigningKeys" -}}
{{- $s := .Values.signing -}}
{{- if and $s.existingApiSecret $s.existingRunnerSecret $s.existingTrustConfigMap -}}
{{- else if or $s.existingApiSecret $s.existingRunnerSecret $s.existingTrustConfigMap -}}
{{- fail "signing.existingApiSecret, signing.existingRunnerSecret and signing.existingTrustConfigMap belong together: set all three or none of them" -}}
{{- else -}}
yes
{{- end -}}
{{- end -}}

{{- define "moorage.trustConfigMap" -}}
{{- .Values.signing.existingTrustConfigMap | default (printf "%s-trust" (include "moorage.fullname" .)) -}}
{{- end -}}

{{/* The scopes that the keys of api and runner may grant: moorage_sandbox.protocol, API_SCOPES and RUNNER_SCOPES. */}}
{{- define "moorage.scopes" -}}
api: ["file:read", "shell:read", vnc]
runner: [bind, call, "file:read", "file:write", skills, "shell:read", vnc]
{{- end -}}

{{/* The public key of an Ed25519 private key, as PEM. Sprig cannot derive it, but it can create a certificate that
     contains it: the 32 bytes after the header of an Ed25519 SubjectPublicKeyInfo (RFC 8410). */}}
{{- define "moorage.publicKey" -}}
{{- $certificate := genSelfSignedCertWithKey "moorage" nil nil 1 . -}}
{{- $der := $certificate.Cert | replace "-----BEGIN CERTIFICATE-----" "" | replace "-----END CERTIFICATE-----" "" | replace "\n" "" | b64dec -}}
{{- $header := "\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00" -}}
{{- $key := index (splitList $header $der) 1 | substr 0 32 -}}
{{- printf "-----BEGIN PUBLIC KEY-----\n%s\n-----END PUBLIC KEY-----\n" (printf "%s%s" $header $key | b64enc) -}}
{{- end -}}

{{/* The environment of api and runner that is not in their ConfigMap: secrets, and what differs between them. */}}
{{- define "moorage.serviceEnv" -}}
{{- $credentials := include "moorage.credentials" . -}}
{{- $name := include "moorage.fullname" . -}}
{{- if .Values.postgresql.enabled }}
- name: POSTGRESQL_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $credentials }}, key: postgresql-password}}
- name: MOORAGE_DATABASE_URL
  value: postgresql+asyncpg://moorage:$(POSTGRESQL_PASSWORD)@{{ $name }}-postgresql:5432/moorage
{{- else }}
- name: MOORAGE_DATABASE_URL
  valueFrom: {secretKeyRef: {name: {{ required "postgresql.enabled is false: set postgresql.externalSecret to the name of a Secret with database-url" .Values.postgresql.externalSecret }}, key: database-url}}
{{- end }}
{{- if .Values.valkey.enabled }}
- name: VALKEY_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ $credentials }}, key: valkey-password}}
- name: MOORAGE_REDIS_URL
  value: redis://:$(VALKEY_PASSWORD)@{{ $name }}-valkey:6379/0
{{- else }}
- name: MOORAGE_REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ required "valkey.enabled is false: set valkey.externalSecret to the name of a Secret with redis-url" .Values.valkey.externalSecret }}, key: redis-url}}
{{- end }}
{{- if .Values.minio.enabled }}
- name: MOORAGE_S3_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ $credentials }}, key: minio-access-key}}
- name: MOORAGE_S3_SECRET_KEY
  valueFrom: {secretKeyRef: {name: {{ $credentials }}, key: minio-secret-key}}
{{- else }}
{{- $secret := required "minio.enabled is false: set minio.external.existingSecret to the name of a Secret with access-key and secret-key" .Values.minio.external.existingSecret }}
- name: MOORAGE_S3_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: access-key}}
- name: MOORAGE_S3_SECRET_KEY
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: secret-key}}
{{- end }}
- name: MOORAGE_JWT_SECRET
  valueFrom: {secretKeyRef: {name: {{ $credentials }}, key: jwt-secret}}
- name: MOORAGE_CONFIG_KEY # when it is missing, api and runner derive one from jwt-secret
  valueFrom: {secretKeyRef: {name: {{ $credentials }}, key: config-key, optional: true}}
{{- if .Values.commands.enabled }}
- name: MOORAGE_MCP_COMMANDS_TOKEN
  valueFrom: {secretKeyRef: {name: {{ include "moorage.commandsSecret" . }}, key: token}}
{{- end }}
{{- with .Values.llm.existingSecret }}
- name: MOORAGE_LLM_API_KEY
  valueFrom: {secretKeyRef: {name: {{ . }}, key: llm-api-key}}
{{- end }}
{{- end -}}

{{/* NetworkPolicy peers: the pods of this release that belong to one of the given components. */}}
{{- define "moorage.peers" -}}
{{- $root := .root -}}
{{- range .components }}
- podSelector:
    matchLabels:
      {{- include "moorage.selectorLabels" (dict "root" $root "component" .) | nindent 6 }}
{{- end }}
{{- end -}}

{{/* Egress to the name servers of the cluster. */}}
{{- define "moorage.namesEgress" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
  to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: kube-system
{{- end -}}

{{/* Egress of untrusted code: to public addresses, and to the ranges that `network` opens. */}}
{{- define "moorage.outsideEgress" -}}
{{- $closed := .root.Values.sandboxes.network -}}
{{- if .network.internet }}
- to:
    - ipBlock:
        cidr: 0.0.0.0/0
        except:
          {{- toYaml $closed.closedRanges | nindent 10 }}
    - ipBlock:
        cidr: ::/0
        except:
          {{- toYaml $closed.closedRangesV6 | nindent 10 }}
{{- end }}
{{- with .network.openRanges }}
- to:
    {{- range . }}
    - ipBlock:
        cidr: {{ . | quote }}
    {{- end }}
{{- end }}
{{- end -}}
